/**
 * The guardian's program, for any POSIX shell.
 *
 * It reads the ledger from its standard input, whose other end only the host holds. End of file means that the host has
 * gone, however it went. Then every registered group gets SIGTERM at once; what follows is the sweeper's work, or the
 * loop below where no Node can be started any more.
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
while read -r op a b c; do
  case $op in
    +) trees="$trees|$a:$b|" ;;
    -) case $trees in *"|$a:"*) rest=\${trees#*"|$a:"}; trees="\${trees%%"|$a:"*}\${rest#*"|"}" ;; esac ;;
    =) kept="$kept$a " ;;
    '~') kept="\${kept%%" $a "*} \${kept#*" $a "}" ;;
    C) groups=$a ;;
    Q) exit 0 ;;
  esac
done
each() {
  IFS='|'
  for entry in $trees; do
    leader=\${entry#*:}
    [ "\${leader:-0}" -le 1 ] || kill -"$1" "-$leader" 2>/dev/null
  done
  unset IFS
}
if [ "$grace" -gt 0 ]; then each TERM; each CONT; fi
[ -x "$node" ] && "$node" "$sweeper" "$host" "$start" "$grace" "$record" && exit 0
members() {
  [ -r /proc/self/limits ] || return
  { grep -l "^Max file locks  *$prefix" /proc/[0-9]*/limits; grep -l "TREELINE_TREE=[0-9./]*$host\\\\.$start\\\\." /proc/[0-9]*/environ; } 2>/dev/null |
  while IFS=/ read -r _ _ pid _; do
    grep -q "^State:[[:space:]]*[ZX]" "/proc/$pid/status" 2>/dev/null && continue
    tag=$(grep '^Max file locks' "/proc/$pid/limits" 2>/dev/null) || continue
    tag=\${tag#*"$prefix"}; tag=\${tag%%" "*}
    case $tag in 0000000) continue ;; [0-9]*) while [ "\${tag#0}" != "$tag" ]; do tag=\${tag#0}; done ;; esac
    case $kept in *" $tag "*) continue ;; esac
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
[ "$record" = - ] || rm -f "$record"
`
