pragma cache_size = -200000; -- in KiB: pages in memory, from malloc
pragma temp_store = memory;
pragma synchronous = off;
create table words (id integer primary key, word text, n integer, x real, payload blob);
with recursive r(i) as (select 1 union all select i + 1 from r where i < @ROWS@)
insert into words
  select i, printf('word-%d-%s', (i * 7919) % 50021, substr('abcdefghijklmnopqrstuvwxyz', 1, i % 26)),
         (i * 7919) % 1009, i / 7.0, case when i % 50 = 0 then zeroblob(i % 700) end
  from r;
create index words_word on words (word);
create index words_n on words (n, x);
create table groups (n integer primary key, name text);
insert into groups select distinct n, 'group ' || n from words;

select count(*), sum(n), round(sum(x), 3), sum(length(word)), sum(length(payload)) from words;
select g.name, count(*), max(w.word), round(avg(w.x), 3) from words w join groups g on g.n = w.n
  group by g.name order by g.name limit 200;
select word, count(*) c from words group by word having c > 15 order by c desc, word limit 50;
select n, id, sum(n) over (partition by n % 7 order by id rows 3 preceding) from words where id % 9973 = 0 order by id;
select json_group_array(json_object('id', id, 'word', word)) from (select * from words where id % 20011 = 0 order by id);
select group_concat(word, '|') from (select word from words where id % 4999 = 0 order by word);
begin;
update words set word = upper(word), n = n + 1 where id % 3 = 0;
delete from words where id % 11 = 0;
rollback;
begin;
update words set x = -x where n % 13 = 0;
delete from words where id % 17 = 0;
commit;
select count(*), round(sum(x), 3) from words;
analyze;
vacuum;
