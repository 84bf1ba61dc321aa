/**
 * The guardian's program, for any POSIX shell.
 *
 * It reads the ledger from its standard input, whose other end only the host holds. End of file means that the host has
 * gone, however it went. Then every registered group gets SIGTERM at once; what follows is the sweeper's work, or the
 * loop below where no Node can be started any more. The sweeper is told what this program knows, because there may be no
 * record, or one that a full disk has cut short.
 *
 * A group is signalled unless the number of its leader has passed to another process, which has another start time: field
 * 22 of /proc/PID/stat, counted from the last `)` because a name may hold anything (proc(5)). A leader that has gone leaves
 * its number to its group. What is kept is what any record of the host says, for it may have several platforms. Where the
 * host lives on and only a Worker has ended, just the trees that were told end.
 *
 * Arguments: own tag, tag prefix of the host, pid and start time of the host, grace in ms, node, sweeper, record or `-`.
 */
export const guardianScript = `
trap '' INT TERM HUP QUIT PIPE TSTP TTIN TTOU USR1 USR2 ALRM
self=$1 prefix=$2 host=$3 start=$4 grace=$5 node=$6 sweeper=$7 record=$8
[ "$self" = - ] || ulimit -S -x "$self" 2>/dev/null || ulimit -S -w "$self" 2>/dev/null
trees=
groups=
kept=' '
keep() {
  case $op in
    =) kept="$kept$a " ;;
    '~') case $kept in *" $a "*) kept="\${kept%%" $a "*} \${kept#*" $a "}" ;; esac ;;
  esac
}
while read -r op a b c; do
  case $op in
    +) trees="$trees|$a $b $c|" ;;
    -) case $trees in *"|$a "*) rest=\${trees#*"|$a "}; trees="\${trees%%"|$a "*}\${rest#*"|"}" ;; esac ;;
    = | '~') keep ;;
    C) groups=$a ;;
    Q) exit 0 ;;
  esac
done
look() {
  stat=
  [ ! -r /proc/self/limits ] || while read -r line; do stat="$stat $line"; done <"/proc/$1/stat"
  [ -n "$stat" ] || return 1
  set -- \${stat##*") "}
  is=$1 since=\${20}
}
reused() { look "$1" && [ "$since" != "$2" ]; }
lives() { look "$host" && [ "$since" = "$start" ] && case $is in Z | X) false ;; esac; }
each() {
  signals=$*
  IFS='|'
  for tree in $trees; do
    unset IFS
    set -- $tree
    [ "\${2:-0}" -le 1 ] || reused "$2" "$3" || for signal in $signals; do kill -"$signal" "-$2"; done
  done 2>/dev/null
  unset IFS
}
state() {
  IFS='|'
  for tree in $trees; do [ -z "$tree" ] || echo "+ $tree"; done
  unset IFS
  for tree in $kept; do echo "= $tree"; done
  [ -z "$groups" ] || echo "C $groups"
}
[ "$grace" -le 0 ] || each TERM CONT
[ -x "$node" ] && state | "$node" "$sweeper" "$host" "$start" "$grace" "$record" told && exit 0
waited=0
while [ "$waited" -lt 300 ] && lives; do sleep 0.05; waited=$((waited + 50)); done
part=
lives && part=1
[ "$record" = - ] || for file in "\${record%-*}"-*.host; do
  [ "$file" = "$record" ] || while read -r op a b c; do keep; done <"$file"
done
members() {
  [ -r /proc/self/limits ] || return
  { grep -l "^Max file locks  *$prefix" /proc/[0-9]*/limits; grep -l "TREELINE_TREE=[0-9./]*$host\\\\.$start\\\\." /proc/[0-9]*/environ; } 2>/dev/null |
  while IFS=/ read -r _ _ pid _; do
    grep -q "^State:[[:space:]]*[ZX]" "/proc/$pid/status" 2>/dev/null && continue
    tag=$(grep '^Max file locks' "/proc/$pid/limits" 2>/dev/null) || continue
    tag=\${tag#*"$prefix"}; tag=\${tag%%" "*}
    case $tag in 0000000) continue ;; [0-9]*) while [ "\${tag#0}" != "$tag" ]; do tag=\${tag#0}; done ;; esac
    case $kept in *" $tag "*) continue ;; esac
    case $part$trees in 1*"|$tag "*) ;; 1*) continue ;; esac
    echo "$pid"
  done
}
if [ "$grace" -gt 0 ]; then
  for pid in $(members); do kill -TERM "$pid" 2>/dev/null; kill -CONT "$pid" 2>/dev/null; done
  waited=0
  while [ "$waited" -lt "$grace" ] && { [ -n "$(members)" ] || [ ! -r /proc/self/limits ]; }; do sleep 0.05; waited=$((waited + 50)); done
fi
rounds=0
quiet=0
while [ "$rounds" -lt 200 ] && [ "$quiet" -lt 3 ]; do
  each KILL
  quiet=$((quiet + 1))
  for pid in $(members); do quiet=0; kill -KILL "$pid" 2>/dev/null; done
  rounds=$((rounds + 1))
done
if [ -n "$groups" ]; then
  for group in "$groups"/*/; do
    tree=\${group%/}; tree=\${tree##*/}
    case $kept in *" $tree "*) ;; *) echo 1 > "$group/cgroup.kill"; rmdir "$group" || { sleep 0.05; rmdir "$group"; } ;; esac
  done 2>/dev/null
  rmdir "$groups" 2>/dev/null
fi
case $kept in *[0-9]*) ;; *) [ "$record" = - ] || rm -f "$record" ;; esac
`
