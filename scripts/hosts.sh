#!/usr/bin/env bash
# Several hosts on one machine: network namespaces on a bridge, each with its own name, address and shared memory.
#
#   scripts/hosts.sh up 4           hosts h0..h3 (10.77.0.1 and on); needs root and iproute2
#   scripts/hosts.sh on h2 CMD...   runs a command there
#   scripts/hosts.sh swallow 4      adds a network (10.88.0.1 and on) on which nothing ever arrives, like behind a firewall
#   scripts/hosts.sh cut h2         takes its link down; `join h2` brings it up again
#   scripts/hosts.sh pids h2        process ids of what runs there
#   scripts/hosts.sh bytes h2       bytes that it has sent
#   scripts/hosts.sh down           ends what still runs there and removes them
#   scripts/hosts.sh rsh ...        what mpirun calls in place of ssh:
#
#   scripts/hosts.sh on h0 mpirun --mca plm_rsh_agent "$PWD/scripts/hosts.sh rsh" -H h0,h1,h2,h3 -n 4 --map-by node ...
set -euo pipefail
# Several sets of hosts can be there at once, each under a name of its own.
prefix=${MINKE_HOSTS:-minke-hosts}
state=${TMPDIR:-/tmp}/$prefix
here=$(realpath "$0")

namespaces() { ip netns list | awk '{print $1}' | grep "^$prefix-" || true; }

up() {
  local count=$1 i
  mkdir -p "$state"
  { echo "127.0.0.1 localhost"; for ((i = 0; i < count; i++)); do echo "10.77.0.$((i + 1)) h$i"; done; } >"$state/hosts"
  ip netns add "$prefix-bridge"
  ip -n "$prefix-bridge" link add bridge0 type bridge
  ip -n "$prefix-bridge" link set bridge0 up
  for ((i = 0; i < count; i++)); do
    ip netns add "$prefix-h$i"
    ip link add eth0 netns "$prefix-h$i" type veth peer name "h$i" netns "$prefix-bridge"
    ip -n "$prefix-bridge" link set "h$i" master bridge0 up
    ip -n "$prefix-h$i" address add "10.77.0.$((i + 1))/24" dev eth0
    ip -n "$prefix-h$i" link set eth0 up
    ip -n "$prefix-h$i" link set lo up
  done
}

# The neighbours' addresses are known, so packets leave, and the bridge does not carry them.
swallow() {
  local count=$1 i j
  for ((i = 0; i < count; i++)); do
    ip link add eth1 netns "$prefix-h$i" type veth peer name "swallow$i" netns "$prefix-bridge"
    ip -n "$prefix-bridge" link set "swallow$i" up
    ip -n "$prefix-h$i" address add "10.88.0.$((i + 1))/24" dev eth1
    ip -n "$prefix-h$i" link set eth1 up
    for ((j = 0; j < count; j++)); do
      if ((i != j)); then ip -n "$prefix-h$i" neigh add "10.88.0.$((j + 1))" lladdr 02:00:00:00:00:01 dev eth1; fi
    done
  done
}

# A host of its own name is what lets MPI leave shared memory and use the network.
on() {
  local host=$1
  shift
  exec ip netns exec "$prefix-$host" unshare --uts --mount bash -c '
    hostname "$1"; mount --bind "$2" /etc/hosts; mount -t tmpfs none /dev/shm; shift 2; exec "$@"' \
    on "$host" "$state/hosts" "$@"
}

# ssh's manner of calling: options, a host, then words for a shell.
rsh() {
  while [[ ${1:-} == -* ]]; do shift; done
  local host=$1
  shift
  on "$host" bash -c "cd '$PWD'; $*"
}

down() {
  local name
  for name in $(namespaces); do
    ip netns pids "$name" | xargs -r kill -9
    ip netns delete "$name"
  done
  rm -rf "$state"
}

# Done when the host reaches another again, which takes a while after its link is up: a refused call has come through.
join() {
  local tries answer
  ip -n "$prefix-bridge" link set "$1" up
  for ((tries = 0; tries < 100; tries++)); do
    answer=$(ip netns exec "$prefix-$1" timeout 1 bash -c ': </dev/tcp/10.77.0.1/9' 2>&1 || true)
    if [[ $answer == *refused* ]]; then return; fi
    sleep 0.1
  done
  echo "hosts.sh: $1 does not reach h0: $answer" >&2
  return 1
}

command=${1:-}
shift || true
case $command in
  up) down; up "${1:-4}" ;;
  down) down ;;
  swallow) swallow "$1" ;;
  on) on "$@" ;;
  rsh) rsh "$@" ;;
  pids) ip netns pids "$prefix-$1" ;;
  bytes) ip netns exec "$prefix-$1" cat /sys/class/net/eth0/statistics/tx_bytes ;;
  cut) ip -n "$prefix-bridge" link set "$1" down ;;
  join) join "$1" ;;
  *) sed -n '2,/^set/p' "$here" | grep '^#' >&2; exit 1 ;;
esac
