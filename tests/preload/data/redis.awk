# Writes n commands over every kind of Redis value, the same in every run.
function random(limit) {
    seed = (seed * 16807) % 2147483647
    return seed % limit
}
function text(length_wanted,   s) {
    s = pad
    while (length(s) < length_wanted)
        s = s s
    return substr(s, 1, length_wanted)
}
BEGIN {
    seed = 5
    pad = "abcdefghijklmnopqrstuvwxyz0123456789"
    for (i = 0; i < n; i++) {
        k = random(500)
        kind = random(10)
        if (kind == 0) print "SET s:" k " " text(random(2000) + 1)
        else if (kind == 1) print "APPEND s:" k " " text(random(50) + 1)
        else if (kind == 2) print "RPUSH l:" k % 20 " " text(random(80) + 1) " " i
        else if (kind == 3) print "LPOP l:" k % 20
        else if (kind == 4) print "HSET h:" k " field:" random(200) " " text(random(100) + 1)
        else if (kind == 5) print "SADD set:" k % 30 " member" random(5000)
        else if (kind == 6) print "ZADD z " random(100000) " m" random(20000)
        else if (kind == 7) print "DEL s:" random(500)
        else if (kind == 8) print "XADD x:" k % 5 " " i + 1 "-1 a " i " b " text(random(40) + 1)
        else print "SETBIT bits:" k % 10 " " random(200000) " 1"
    }
}
