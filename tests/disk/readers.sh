# Sourced in the scratch folder: same_in_PROGRAM VHDX RAW, true when the program reads RAW's content from the VHDX.
cat >"$scratch/vhdi.py" <<'PY'
import os, sys
import pyvhdi
opened = []  # libvhdi does not keep the parents alive

def open_disk(path):
    disk = pyvhdi.file()
    opened.append(disk)
    disk.open(path)
    parent = disk.get_parent_filename()
    if parent:
        disk.set_parent(open_disk(parent.split('\\')[-1]))
    return disk

disk = open_disk(sys.argv[1])
for at in range(0, disk.get_media_size(), 1 << 20):
    sys.stdout.buffer.write(disk.read_buffer_at_offset(min(1 << 20, disk.get_media_size() - at), at))
PY

same_in_qemu() { qemu-img check "$1" && qemu-img compare "$1" "$2"; }
same_in_7zz() { 7zz t "$1" >/dev/null && 7zz x -so "$1" 2>/dev/null | cmp - "$2"; }
same_in_libvhdi() { /usr/bin/python3 "$scratch/vhdi.py" "$1" | cmp - "$2"; }
