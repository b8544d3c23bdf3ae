"""The sqlite3 shell on a database in memory: rows inserted, indices made, rows
joined, grouped, updated and deleted."""

import random
import shutil


def missing():
    return None if shutil.which("sqlite3") else "sqlite3"


def prepare(context):
    rng = random.Random(context.seed)
    rows = context.amount(60000)
    with open(context.folder / "work.sql", "w", encoding="ascii") as sql:
        print(".bail on", file=sql)
        print("create table item(id integer primary key, kind integer, name text, body text);", file=sql)
        print("create table event(item integer, at integer, note text);", file=sql)
        print("begin;", file=sql)
        for i in range(rows):
            name = f"name{rng.randrange(10**9)}"
            print(f"insert into item values({i},{rng.randrange(500)},'{name}','{'x' * rng.randrange(10, 200)}');", file=sql)
            print(f"insert into event values({rng.randrange(rows)},{rng.randrange(10**6)},'note {i}');", file=sql)
        print("commit;", file=sql)
        print("create index by_name on item(name); create index by_item on event(item, at);", file=sql)
        for i in range(context.amount(3000)):
            print(f"select name, count(*) from item join event on item = id where id between {i} and {i + 20} group by name;", file=sql)
        print("select kind, group_concat(name) from item group by kind;", file=sql)
        print("update item set body = body || name where kind % 3 = 0;", file=sql)
        print("delete from item where kind % 7 = 0;", file=sql)
        print("select substr(body, 1, 5), count(distinct name) from item group by 1 order by 2 desc;", file=sql)


def run(context, library):
    return context.run(["sqlite3", "-batch", ":memory:", ".read work.sql"], library)
