#!/usr/bin/env bash
# Boots systemd as process 1 of namespaces of its own: what it mounts, listens on and creates
# is gone with it. Run as root by
#
#   unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup --mount-proc examples/systemd/boot.sh DIR
#
# DIR/bin becomes /usr/local/bin, DIR/units holds all units there are, DIR/etc becomes /etc/sallyport.
set -euo pipefail
dir=$1

mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/etc
cp -a /etc/. /run/etc/
mount --bind /run/etc /etc
mkdir -p /etc/sallyport
mount --bind "$dir/etc" /etc/sallyport
mount --bind "$dir/bin" /usr/local/bin
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mount -t tmpfs -o mode=0755 tmpfs /var/log
# Credentials of services are mounted by a child of systemd and must arrive here.
mount --make-rshared /
ip link set lo up
exec env -i container=other "PATH=$PATH" "SYSTEMD_UNIT_PATH=$dir/units" \
  /lib/systemd/systemd --system --unit=story.target --log-target=null --show-status=0
