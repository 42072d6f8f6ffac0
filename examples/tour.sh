#!/usr/bin/env bash
# A tour of the annals command on real input. It checks itself, and ends at the first wrong result.
#
#   examples/tour.sh [repository]        default: this directory
#
# It imports the history of a git repository, is killed and continues, follows, backs up, restores, forks and rolls
# back. It erases one author, and compacts while it is killed. A head from before proves that nothing else changed.
# All files are in a temporary directory. ANNALS names the program.
set -euo pipefail

repository=${1:-.}
ANNALS=${ANNALS:-target/release/annals}
if ! [ -x "$ANNALS" ]; then
    cargo build --release --package annals-cli
fi
ANNALS=$(realpath "$ANNALS")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export ANNALS_DIR="$work/history"

annals() { "$ANNALS" "$@"; }
say() { printf '\n== %s\n' "$*"; }
die() { printf 'tour: %s\n' "$*" >&2; exit 1; }

# It must end with this exit code.
ends_with() {
    local expected=$1 code=0
    shift
    "$@" >"$work/out" 2>"$work/err" || code=$?
    [ "$code" = "$expected" ] || die "$* ended with $code instead of $expected: $(cat "$work/err")"
}

# In the background "$ANNALS" is called: of a function the shell around it would be what is killed.

# The position the log has come to.
position() { annals head | cut -d: -f1; }

# Kills a process once the log has come to a position, if it is not through before.
kill_at() {
    until [ "$(position)" -ge "$1" ] || ! kill -0 "$2" 2>/dev/null; do :; done
    kill -9 "$2" 2>/dev/null || true
    wait "$2" 2>/dev/null || true
}

say "the history of a repository as lines of JSON"
git -C "$repository" log --reverse --no-merges --name-status --format='commit%x09%H%x09%an%x09%cI' |
    awk -F '\t' '
        function text(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); gsub(/[[:cntrl:]]/, "?", s); return s }
        $1 == "commit" { hash = $2; author = text($3); at = $4; next }
        /^[AMD]\t/ {
            kind = $1 == "A" ? "added" : $1 == "M" ? "modified" : "deleted"
            printf "{\"entity\":\"file:%s\",\"kind\":\"file.%s\",\"tags\":[\"author:%s\"],\"occurred_at\":\"%s\",", \
                text($2), kind, author, at
            printf "\"payload\":{\"commit\":\"%s\",\"author\":\"%s\"}}\n", hash, author
        }' >"$work/history.jsonl"
lines=$(wc -l <"$work/history.jsonl")
[ "$lines" -gt 50 ] || die "$repository has hardly any history"
# So that killing it in the middle meets it at work.
for _ in 1 2 3 4 5 6 7 8; do cat "$work/history.jsonl"; done >"$work/long.jsonl"
total=$((lines * 8))
echo "$lines changes of files, $total lines"

say "an import, killed with -9 again and again, goes on behind what went in"
annals init
for try in 1 2 3 4 5; do
    "$ANNALS" import "$work/long.jsonl" --name history >"$work/out" 2>"$work/err" &
    pid=$!
    kill_at $((try * 2000)) "$pid"
    annals recover | grep -E 'found|would'
done
annals import "$work/long.jsonl" --name history
[ "$(annals export | wc -l)" = "$total" ] || die "not every line is in, once"
annals import "$work/long.jsonl" --name history --json | grep -q '"events":0' || die "a rerun appended something"

say "what is in it"
annals stats
annals kinds
annals read --limit 2
annals tail -n 1 --json
file=$(annals entities --limit 1 | cut -f1)
[ "$(annals read --entity "$file" | cut -f5 | tail -n 1)" = "$(annals read --entity "$file" | wc -l)" ] ||
    die "versions of $file have gaps"

say "verified, and its head kept elsewhere"
annals verify
annals head | tee "$work/head"

say "hooks: 16 processes append at once, and one process follows"
before=$(position)
"$ANNALS" read --prefix hook: --after "$before" --follow --limit 160 >"$work/followed" &
follower=$!
hooks=()
for process in $(seq 16); do
    (for n in $(seq 10); do
        annals append "hook:$process" hook.ran "{\"n\":$n}" --wait 60s >/dev/null || exit 1
    done) &
    hooks+=($!)
done
for hook in "${hooks[@]}"; do wait "$hook" || die "a hook failed"; done
wait "$follower"
[ "$(wc -l <"$work/followed")" = 160 ] || die "the follower missed something"
[ "$(annals entities --prefix hook: | cut -f2 | sort -u)" = 10 ] || die "an append is missing"

say "conflicts, keys, retries"
annals append order:1 order.placed '{"cents":2000}' --expect none --key order-1
annals append order:1 order.placed '{"cents":2000}' --expect none --key order-1 | grep replayed
ends_with 1 annals append order:1 order.placed 1 --expect none
ends_with 2 annals append order:1 order.placed not-json
ends_with 1 annals get 999999999
ends_with 2 annals --dir "$work/nowhere" read
annals read | head -n 1 >/dev/null

say "a backup, while others append"
"$ANNALS" append load:1 load.came --lines <(seq 20000) --wait 60s >/dev/null &
load=$!
annals backup "$work/backup" --reason 'every evening'
wait "$load" || die "the backup got in the way of an append"
annals backup "$work/backup" --reason 'again, what is new'
annals verify --dir "$work/backup" --head "$(annals head)"

say "restored to a time, and verified against the head from before"
annals restore "$work/backup" "$work/restored" --until "$(tail -n 1 "$work/followed" | cut -f2)" --reason 'what was it like?'
annals verify --dir "$work/restored" --head "$(cat "$work/head")"
[ "$(annals read --dir "$work/restored" --entity order:1 | wc -l)" = 0 ] || die "the restored store has what came later"

say "a fork goes its own way"
annals fork "$work/fork" --until "@$before"
annals append order:1 order.placed '"another way"' --dir "$work/fork" --expect none
[ "$(annals read --dir "$work/fork" --prefix hook: | wc -l)" = 0 ] || die "the fork has what came later"

say "rolled back"
annals checkpoint 'before the mistake'
annals append order:1 order.paid '{"cents":999999}'
ends_with 1 annals rollback 'checkpoint:before the mistake' --reason 'a wrong amount'
annals rollback 'checkpoint:before the mistake' --reason 'a wrong amount' --cut "$(annals head)"
[ "$(annals read --entity order:1 | wc -l)" = 1 ] || die "the mistake is still there"
annals verify --head "$(cat "$work/head")"

say "a checkpoint"
annals checkpoint 'before erasing' --reason 'the tour goes on'

say "one author is erased, killed in the middle, and again"
author=$(annals tags --prefix author: | sort -t "$(printf '\t')" -k2,2nr | head -n 1 | cut -f1)
count=$(annals read --tag "$author" | wc -l)
ends_with 1 annals erase --tag "$author" --reason 'asked for'
before=$(position)
"$ANNALS" erase --tag "$author" --reason 'asked for' --yes >"$work/out" 2>"$work/err" &
kill_at $((before + 1)) $!
annals verify
annals erase --tag "$author" --reason 'asked for' --yes
[ "$(annals read --tag "$author" | grep -c '(erased)$')" = "$count" ] || die "not all of $author is gone"
[ "$(annals read --tag "$author" --json | grep -c '"payload"')" = 0 ] || die "a payload of $author is left"

say "verified in parts"
annals verify --after "$(annals verify --json | sed 's/.*"verified":"\([^"]*\)".*/\1/')" --bytes-per-second 500000000

say "what came as load goes but for the newest 100, killed with -9 again and again"
kept() { annals read --prefix file: | cksum; annals read --prefix hook: | cksum; annals tail --entity load:1 -n 100 | cksum; }
kept >"$work/kept"
first=$(annals read --entity load:1 --limit 1 | cut -f1)
bytes=$(annals stats --json | sed 's/.*"bytes":\([0-9]*\).*/\1/')
for try in 1 2 3 4 5 6 7 8; do
    before=$(position)
    # A third of a second to look, and as long to write.
    "$ANNALS" compact --remove --entity load:1 --before $((first + try * 2000)) --reason 'only load' --yes \
        --bytes-per-second $((bytes * 3)) >"$work/out" 2>"$work/err" &
    pid=$!
    until [ "$(position)" -gt "$before" ] || ! kill -0 "$pid" 2>/dev/null; do :; done
    # Each is killed a little later: while it writes, while it exchanges files, once it is through.
    sleep "$(printf '0.%03d' $((try * 60)))"
    kill_at 0 "$pid"
    annals verify --head "$(cat "$work/head")" >"$work/out" || die "damaged after try $try: $(cat "$work/out")"
    left=$(annals read --entity load:1 | wc -l)
    [ "$left" -le 20000 ] && [ "$left" -ge $((20000 - try * 2000)) ] || die "$left events of load:1 are left after try $try"
    echo "$left events of load:1 are left after kill $try, and everything else verifies"
    kept | cmp - "$work/kept" || die "what was to stay has changed"
done
compact=(compact --remove --entity load:1 --keep-newest 100 --per entity --reason 'only load')
ends_with 1 annals "${compact[@]}"
annals "${compact[@]}" --dry-run --table
annals "${compact[@]}" --merge --yes
[ "$(annals read --entity load:1 | wc -l)" = 100 ] || die "not all of the load is gone, or too much"
kept | cmp - "$work/kept" || die "what was to stay has changed"
annals "${compact[@]}" --yes --json | grep -q '"removed":0' || die "a second run removed something"

say "and the head from before all that still holds"
annals verify --head "$(cat "$work/head")"

say "health"
annals doctor --table || die "the doctor found something bad"
annals consumers
annals describe

say "done: $(position) positions, everything as it should be"
