set max_parallel_workers_per_gather = 2;
set parallel_setup_cost = 0;
set parallel_tuple_cost = 0;
set min_parallel_table_scan_size = 0;

create table numbers as
  select i, (i * 7919) % 1009 as n, 'word ' || (i * 31) % 5003 as word, md5(i::text) as hash
  from generate_series(1, :n) i;
create index on numbers (n);
create index on numbers (word, hash);
analyze numbers;

select count(*), sum(n), min(hash), max(hash) from numbers;
select n, count(*), string_agg(word, ',' order by i) from numbers where n < 5 group by n order by n;
select a.n, count(*) from numbers a join numbers b on a.hash = b.hash and a.n = b.n group by a.n order by 2 desc, 1 limit 20;
select md5(string_agg(hash, '' order by i)) from numbers;
select md5(jsonb_agg(to_jsonb(t) order by t.i)::text) from numbers t where i % 7 = 0;
select i, rank() over (partition by n order by hash) from numbers where n = 17 order by i limit 30;
select count(*) from (select regexp_matches(hash, '([a-f]{3}).*\1') from numbers) t;

create function collatz(start bigint) returns int language plpgsql as $$
declare steps int := 0; seen bigint[] := '{}';
begin
  while start <> 1 loop
    start := case when start % 2 = 0 then start / 2 else 3 * start + 1 end;
    steps := steps + 1;
    if steps % 10 = 0 then seen := seen || start; end if;
  end loop;
  return steps + array_length(seen, 1) * 0;
end $$;
select sum(collatz(i)) from generate_series(30, 1500) i;

-- Expressions compiled by LLVM inside the server, where this build has it.
set jit = on;
set jit_above_cost = 0;
set jit_inline_above_cost = 0;
set jit_optimize_above_cost = 0;
select sum(case when n % 3 = 0 then i * 2 when n % 5 = 0 then i + n else length(word) end) from numbers;
set jit = off;

do $$ begin
  perform 1 / (n - n) from numbers limit 1;
exception when division_by_zero then raise info 'caught';
end $$;
update numbers set word = word || '!' where i % 10 = 0;
delete from numbers where i % 3 = 0;
select count(*), md5(string_agg(word, '' order by i)) from numbers;
