/** `--help` and `--version` of quiesce-nbd. The option names are qemu-nbd's, the words are ours. */
import packageJson from '../../package.json' with { type: 'json' };

export function help(name: string): string {
  return `Usage: ${name} [OPTIONS] FILE
  or:  ${name} -L [OPTIONS]
Serves a disk image over NBD, with the options of qemu-nbd

  -h, --help                show this text and end
  -V, --version             show the version and end

Where clients connect:
  -p, --port=PORT           TCP port (default 10809)
  -b, --bind=IFACE          address of the interface (default 0.0.0.0)
  -k, --socket=PATH         a unix socket instead; an absolute path
  -e, --shared=NUM          clients at once (default 1; 0 for any number)
  -t, --persistent          stay when the last client has gone
  -v, --verbose             say more
  -x, --export-name=NAME    name of the export (default: the empty name)
  -D, --description=TEXT    what -L shows about the export

Which part of the image:
  -o, --offset=OFFSET       begin at this byte
  -A, --allocation-depth    tell clients which layer holds each range
  -B, --bitmap=NAME         tell clients what a persistent dirty bitmap holds

General:
  -L, --list                list the exports of another NBD server
      --object=TYPE,id=ID,...
                            make an object: secret, tls-creds-x509, ...
      --tls-creds=ID        TLS with the credentials of that object
      --tls-hostname=NAME   name to verify the server's certificate with (-L)
      --tls-authz=ID        who may connect
  -T, --trace=PATTERN       log these trace events: see -T help; also
                            [enable=]PATTERN,events=FILE,file=LOG
      --fork                go to the background as soon as clients can connect
      --pid-file=PATH       write the server's process id
      --selinux-label=LABEL not available

The kernel's NBD client (not available):
  -c, --connect=DEV         attach FILE to a device
  -d, --disconnect          detach a device

How the image is opened:
  -f, --format=FORMAT       do not probe: raw, qcow2, ...
  -r, --read-only           no writes
  -s, --snapshot            writes go to a temporary overlay that is dropped at the end
  -l, --load-snapshot=SNAPSHOT
                            read-only, as of an internal snapshot: ID, NAME, or
                            snapshot.id=ID,snapshot.name=NAME
  -n, --nocache             the same as --cache=none
      --cache=MODE          none, writeback (default), writethrough, directsync, unsafe
      --aio=MODE            threads, native, io_uring
      --discard=MODE        ignore (default), unmap
      --detect-zeroes=MODE  off (default), on, unmap
      --image-opts          FILE is a tree of options: driver=...,file.filename=...
`;
}

/** The version of QEMU whose behaviour this is comes first, since programs read it. */
export function version(name: string): string {
  return `${name} 7.2.22 (quiesce ${packageJson.version})
An NBD server with the command line of qemu-nbd, part of Quiesce; no code of QEMU is in it.
`;
}
