#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a guest: file systems, drivers, and a shell on the second serial port.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t bpf none /sys/fs/bpf
mount -t tmpfs none /tmp
mount -t tmpfs none /run
mkdir -p /dev/pts /run/pointsman
# The kernel hands on what is on its command line.
for module in $(echo "${MODULES:-}" | tr , ' '); do
	modprobe "$module"
done
# The port stays open from the first word on: closing it would throw away what has come. It is not
# busybox' own shell, which takes busybox' ip for ip; and it prompts for nothing, as its errors go to
# no terminal.
shells() {
	while :; do
		setsid sh -c 'exec </dev/ttyS1 >/dev/ttyS1; stty raw -echo; echo "#shell"; exec dash 2>/dev/null'
	done
}
if [ -n "${SYSTEMD:-}" ]; then
	mkdir -p /var/tmp
	# Its commands may be used as soon as there is a shell.
	(until systemctl is-system-running | grep -Eq 'running|degraded'; do sleep 0.2; done; shells) 2>/dev/null &
	exec /lib/systemd/systemd
fi
shells
