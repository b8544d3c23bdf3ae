// A file that is heavy on the C++ library: for the compiler a lot of templates,
// for the program that it makes a lot of allocations of every kind.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

namespace {

std::uint64_t mix(std::uint64_t h, std::uint64_t x)
{
    return (h ^ x) * 0x9e3779b97f4a7c15u + (h >> 31);
}

std::uint64_t mix(std::uint64_t h, const std::string &s)
{
    for (unsigned char c : s)
        h = mix(h, c);
    return h;
}

using Value = std::variant<std::int64_t, double, std::string, std::vector<std::string>>;

struct alignas(64) Padded {
    int n;
    explicit Padded(int v) : n(v) {}
};

struct Shape {
    virtual ~Shape() = default;
    virtual std::uint64_t area() const = 0;
};

template <int N> struct Box final : Shape {
    char data[N] = {};
    std::uint64_t area() const override { return N + static_cast<unsigned char>(data[0]); }
};

std::uint64_t containers(int rounds)
{
    std::mt19937 random(1);
    std::map<std::string, Value> tree;
    std::unordered_map<int, std::list<std::string>> table;
    std::deque<std::shared_ptr<Shape>> shapes;
    std::multiset<std::string, std::greater<>> bag;
    std::uint64_t h = 1;
    for (int i = 0; i < rounds; i++) {
        std::string key = "key" + std::to_string(random() % 5000);
        switch (random() % 4) {
        case 0: tree[key] = static_cast<std::int64_t>(i); break;
        case 1: tree[key] = std::string(random() % 300, 'a'); break;
        case 2: tree[key] = std::vector<std::string>(random() % 20, key); break;
        default: tree.erase(key);
        }
        auto &row = table[static_cast<int>(random() % 1000)];
        row.push_front(key);
        if (row.size() > 20)
            row.clear();
        if (i % 3 == 0)
            shapes.push_back(std::make_shared<Box<100>>());
        else
            shapes.push_back(std::make_unique<Box<3000>>());
        if (shapes.size() > 400)
            shapes.pop_front();
        bag.insert(key);
        if (bag.size() > 2000)
            bag.erase(bag.begin());
    }
    for (const auto &[key, value] : tree)
        h = mix(mix(h, key), value.index());
    for (const auto &shape : shapes)
        h = mix(h, shape->area());
    for (const auto &s : bag)
        h = mix(h, s);
    return h;
}

std::uint64_t operators(int rounds)
{
    std::uint64_t h = 1;
    for (int i = 0; i < rounds; i++) {
        std::unique_ptr<Padded> padded(new Padded(i));
        if (reinterpret_cast<std::uintptr_t>(padded.get()) % alignof(Padded) != 0)
            std::abort();
        std::unique_ptr<Padded[]> many(new Padded[3]{Padded(1), Padded(2), Padded(i)});
        std::unique_ptr<char[]> quiet(new (std::nothrow) char[static_cast<std::size_t>(i % 5000 + 1)]);
        h = mix(h, static_cast<std::uint64_t>(padded->n + many[2].n) + (quiet != nullptr));
    }
    // Cannot be satisfied: an exception, and a null pointer.
    volatile std::size_t huge = SIZE_MAX / 4;
    try {
        std::vector<char> v(huge);
        h = 0;
    } catch (const std::bad_alloc &) {
        h = mix(h, 1);
    } catch (const std::length_error &) {
        h = mix(h, 1);
    }
    try {
        ::operator delete(::operator new(huge));
        h = 0;
    } catch (const std::bad_alloc &) {
        h = mix(h, 1);
    }
    return mix(h, ::operator new(huge, std::nothrow) == nullptr);
}

std::uint64_t threads(int rounds)
{
    // Strings made in one thread, freed in another.
    std::vector<std::future<std::vector<std::string>>> work;
    for (int t = 0; t < 8; t++) {
        work.push_back(std::async(std::launch::async, [t, rounds] {
            std::vector<std::string> out;
            for (int i = 0; i < rounds; i++)
                out.push_back(std::string(static_cast<std::size_t>(i * (t + 1) % 400), static_cast<char>('a' + t)));
            std::sort(out.begin(), out.end());
            return out;
        }));
    }
    std::uint64_t h = 1;
    for (auto &future : work) {
        for (const auto &s : future.get())
            h = mix(h, s.size());
    }
    return h;
}

std::uint64_t texts(int rounds)
{
    std::ostringstream out;
    for (int i = 0; i < rounds; i++)
        out << "name" << i % 97 << "=" << i << ";";
    std::string text = out.str();
    std::regex pattern("name([0-9]+)=([0-9]*)7;");
    std::uint64_t h = 1;
    for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at)
        h = mix(h, (*at)[1].str());
    return mix(h, std::regex_replace(text.substr(0, 20000), pattern, "<$1>"));
}

} // namespace

int main(int argc, char **argv)
{
    int scale = argc > 1 ? std::atoi(argv[1]) : 1;
    std::printf("containers %llx\n", static_cast<unsigned long long>(containers(200000 * scale)));
    std::printf("operators %llx\n", static_cast<unsigned long long>(operators(200000 * scale)));
    std::printf("threads %llx\n", static_cast<unsigned long long>(threads(20000 * scale)));
    std::printf("texts %llx\n", static_cast<unsigned long long>(texts(30000 * scale)));
}
