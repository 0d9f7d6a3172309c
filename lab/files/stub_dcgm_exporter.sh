#!/bin/sh
# Stands for NVIDIA's DCGM exporter: takes its options, wants a GPU from CDI, refuses a list of counters that the exporter
# would refuse, and shows figures that were made up. It never looks at a GPU.
set -eu
address="" list=""
for option in "$@"; do
  case $option in
    --address=*) address=${option#*=} ;;
    --collectors=*) list=${option#*=} ;;
    --collect-interval=* | --xid-count-window-size=* | --clock-events-count-window-size=*) ;;
    *) echo "stub: no such option: $option" >&2; exit 1 ;;
  esac
done
[ -n "${STUB_NVIDIA_GPU:-}" ] || { echo "stub: no GPU came into this container" >&2; exit 1; }
mkdir -p /run/www
awk -F, -v list="$list" '
  BEGIN {
    while ((got = getline line < list) > 0) {
      if (line == "" || line ~ /^#/) continue
      if (split(line, part, ",") != 3) { print "stub: no `field, type, help`: " line > "/dev/stderr"; exit 1 }
      gsub(/ /, "", part[1]); gsub(/ /, "", part[2])
      if (part[2] != "label") wanted[part[1]] = 1
    }
    if (got < 0) { print "stub: no list of counters: " list > "/dev/stderr"; exit 1 }
  }
  { split($0, word, /[ {]/); name = word[1] == "#" ? word[3] : word[1]; known[name] = 1; if (name in wanted) print }
  END { for (name in wanted) if (!(name in known)) { print "stub: no such field: " name > "/dev/stderr"; exit 1 } }
' /figures.txt > /run/www/metrics
echo "stub: shows $(grep -vc '^#' /run/www/metrics) series on $address"
exec httpd -f -p "$address" -h /run/www
