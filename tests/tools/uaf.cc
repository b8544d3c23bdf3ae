// A use after free in C++: names to be demangled, one in a shared library.
namespace shop {
template <typename T> struct Basket {
    T *items;
    __attribute__((noinline)) explicit Basket(int n) : items(new T[n]()) {} // line 5
    __attribute__((noinline)) void clear() { delete[] items; }             // line 6
    __attribute__((noinline)) T first() const
    {
        return *const_cast<volatile T *>(items); // line 9
    }
};
} // namespace shop

#ifdef LIBRARY
extern "C" int run_shop()
{
    shop::Basket<int> b(10); // line 17
    b.clear();               // line 18
    return b.first();        // line 19
}
#else
extern "C" int run_shop();
int main() { return run_shop(); }
#endif
