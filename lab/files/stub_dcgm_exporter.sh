#!/bin/sh
# Stands for NVIDIA's DCGM exporter: takes its options, wants a GPU from CDI, refuses a list of counters that the exporter
# would refuse, and shows figures that were made up. On a host with the lab's stub GPUs it shows them for each card whose
# device node the container has; else for its own two, one without and one with MIG.
set -eu
address="" list="" here=/run/stub-nvidia/nvml.tsv
for option in "$@"; do
  case $option in
    --address=*) address=${option#*=} ;;
    --collectors=*) list=${option#*=} ;;
    --collect-interval=* | --xid-count-window-size=* | --clock-events-count-window-size=*) ;;
    *) echo "stub: no such option: $option" >&2; exit 1 ;;
  esac
done
mkdir -p /tmp/www
: > /tmp/cards
if [ -e "$here" ]; then
  while read -r tag minor bus _ uuid _; do
    if [ "$tag" = driver ]; then driver=$minor; fi
    if [ "$tag" = gpu ] && [ -c "/dev/nvidia$minor" ]; then echo "$minor $uuid 0000$bus $driver" >> /tmp/cards; fi
  done < "$here"
fi
[ -s /tmp/cards ] || [ -n "${STUB_NVIDIA_GPU:-}" ] || { echo "stub: no GPU came into this container" >&2; exit 1; }
awk -F, -v list="$list" '
  BEGIN {
    while ((got = getline line < "/tmp/cards") > 0) { split(line, part, " "); for (i = 1; i < 5; i++) card[cards, i] = part[i]; cards++ }
    while ((got = getline line < list) > 0) {
      if (line == "" || line ~ /^#/) continue
      if (split(line, part, ",") != 3) { print "stub: no `field, type, help`: " line > "/dev/stderr"; exit 1 }
      gsub(/ /, "", part[1]); gsub(/ /, "", part[2])
      if (part[2] != "label") wanted[part[1]] = 1
    }
    if (got < 0) { print "stub: no list of counters: " list > "/dev/stderr"; exit 1 }
  }
  { split($0, word, /[ {]/); name = word[1] == "#" ? word[3] : word[1]; known[name] = 1 }
  !(name in wanted) { next }
  !cards || word[1] == "#" { print; next }
  / *[{]gpu="0"/ {
    for (number = 0; number < cards; number++) {
      line = $0
      sub(/gpu="0"/, "gpu=\"" card[number, 1] "\"", line)
      sub(/device="nvidia0"/, "device=\"nvidia" card[number, 1] "\"", line)
      sub(/UUID="[^"]*"/, "UUID=\"" card[number, 2] "\"", line)
      sub(/pci_bus_id="[^"]*"/, "pci_bus_id=\"" toupper(card[number, 3]) "\"", line)
      sub(/DRIVER_VERSION="[^"]*"/, "DRIVER_VERSION=\"" card[number, 4] "\"", line)
      print line
    }
  }
  END { for (name in wanted) if (!(name in known)) { print "stub: no such field: " name > "/dev/stderr"; exit 1 } }
' /figures.txt > /tmp/www/metrics
echo "stub: shows $(grep -vc '^#' /tmp/www/metrics) series on $address"
exec httpd -f -p "$address" -h /tmp/www
