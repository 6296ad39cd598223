#!/bin/sh
# Makes a small Debian machine for QEMU in the directory $1: kernel, initrd, root.img.
# Needs root, for debootstrap. Takes everything from where this machine's apt takes it.
set -eu
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

. /etc/os-release
apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get update -qq
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
	awk -v codename="$VERSION_CODENAME" '$2 == codename && $3 == "main" && $4 == "Debian" { print $1; exit }')
test -n "$mirror" || { echo "apt has no source of Debian $VERSION_CODENAME main" >&2; exit 1; }
proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
test -z "$proxy" || export http_proxy="$proxy" https_proxy="$proxy"

# Kernel and busybox are unpacked, not installed. The virtual package names the real one.
(
	cd "$work"
	apt-get download -q busybox-static "$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')"
	dpkg -x linux-image-*.deb kernel
	dpkg -x busybox-static_*.deb busybox
)
cp "$work"/kernel/boot/vmlinuz-* "$out/kernel"

# Initramfs: only what finds the disk. The modules are loaded in this order.
mkdir -p "$work/initrd/bin" "$work/initrd/dev" "$work/initrd/proc" "$work/initrd/root"
cp "$work/busybox/bin/busybox" "$work/initrd/bin/busybox"
n=10
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk quota_tree quota_v2; do
	find "$work/kernel/lib/modules" -name "$module.ko" -exec cp {} "$work/initrd/$n.ko" \;
	n=$((n + 1))
done
cat >"$work/initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
for module in /*.ko; do insmod "$module"; done
tries=0
until mount -t ext4 /dev/vda /root 2>/dev/null; do
	tries=$((tries + 1))
	test $tries -lt 500 || { echo "initramfs: no /dev/vda"; poweroff -f; }
	usleep 20000
done
mount --move /dev /root/dev
exec switch_root /root /sbin/init
INIT
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$out/initrd"

# Root file system. There is no udev, so what waits for devices is masked.
debootstrap --variant=minbase --include=systemd,systemd-sysv,kmod,uidmap "$VERSION_CODENAME" "$work/root" "$mirror" >"$work/log" 2>&1 ||
	{ tail -n 30 "$work/log" "$work/root/debootstrap/debootstrap.log" >&2; exit 1; }
cd "$work/root"
# What networks of tenants ask the kernel for, which loads it by itself: nf_tables and
# what it needs, and veth.
version=$(basename "$work"/kernel/lib/modules/*)
for part in crypto lib net/netfilter net/ipv4/netfilter net/ipv6/netfilter drivers/net/veth.ko; do
	mkdir -p "$(dirname "usr/lib/modules/$version/kernel/$part")"
	cp -r "$work/kernel/lib/modules/$version/kernel/$part" "usr/lib/modules/$version/kernel/$part"
done
cp "$work/kernel/lib/modules/$version"/modules.builtin* "$work/kernel/lib/modules/$version/modules.order" "usr/lib/modules/$version"
chroot . depmod "$version"
# The generators find nothing here and take seconds of each reload.
rm -rf usr/lib/systemd/system-generators usr/lib/systemd/system-environment-generators
rm -rf var/cache/apt var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale usr/share/info
: >etc/fstab
echo lane >etc/hostname
units=etc/systemd/system
for unit in serial-getty@ttyS0.service dev-ttyS0.device console-getty.service getty@tty1.service getty-static.service \
	modprobe@configfs.service modprobe@dm_mod.service modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service \
	dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	systemd-update-utmp.service systemd-sysusers.service systemd-random-seed.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer; do
	ln -sf /dev/null "$units/$unit"
done
# The second drive is a tar archive; what it calls `run` is the machine's purpose.
cat >"$units/lane.service" <<'UNIT'
[Unit]
Description=What this machine was started for
After=basic.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'rm -rf /root/lane && mkdir /root/lane && tar -x -C /root/lane -f /dev/vdb && cd /root/lane && exec ./run >/dev/ttyS0 2>&1'
TimeoutStartSec=infinity
UNIT
mkdir -p "$units/multi-user.target.wants"
ln -sf ../lane.service "$units/multi-user.target.wants/lane.service"
truncate -s 1G "$out/root.img"
mke2fs -q -t ext4 -O quota,project -d . "$out/root.img"
