/** `--help` and `--version` of quiesce-storage-daemon. The option names are qemu-storage-daemon's, the words are ours. */
import packageJson from '../../package.json' with { type: 'json' };

export function help(name: string): string {
  return `Usage: ${name} [options]
A process that holds disk images open, exports them, and is steered with QMP

Options take effect in the order in which they stand.

  -h, --help                show this text and end
  -V, --version             show the version and end
  -T, --trace [[enable=]PATTERN][,events=FILE][,file=LOG]
                            log these trace events: see -T help

  --blockdev [driver=]DRIVER[,node-name=NAME][,cache.direct=on|off]
             [,cache.no-flush=on|off][,read-only=on|off]
             [,auto-read-only=on|off][,discard=ignore|unmap]
             [,detect-zeroes=on|off|unmap][,...] | JSON
                            open a node of the block graph
  --chardev socket,id=ID,path=PATH[,server=on|off][,wait=on|off]
  --chardev socket,id=ID,host=HOST,port=PORT[,...]
  --chardev socket,id=ID,fd=N[,...]
  --chardev stdio,id=ID     what a monitor speaks through
  --export [type=]nbd,id=ID,node-name=NAME[,name=EXPORT][,writable=on|off]
           [,description=TEXT][,bitmap.0=NAME][,allocation-depth=on|off]
                            export a node over NBD
  --monitor [chardev=]ID[,mode=control][,pretty=on|off]
                            listen for QMP
  --nbd-server addr.type=unix,addr.path=PATH[,tls-creds=ID][,max-connections=N]
  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT[,...]
                            start the NBD server
  --object TYPE,id=ID[,PROPERTY=VALUE...]
                            make an object: secret, tls-creds-x509, tls-creds-psk,
                            throttle-group, iothread; 'help' lists them

  --daemonize               go to the background when all is set up
  --pidfile PATH            write the process id when all is set up
  --state-dir DIR[,checkpoint=SECONDS]
                            keep mirrors and backups in DIR, and go on with
                            interrupted ones here: behind their --blockdev,
                            before --export. Default: every 5 seconds it is
                            noted what need not be copied again
`;
}

/** The version of QEMU whose behaviour this is comes first, since programs read it. */
export function version(name: string): string {
  return `${name} version 7.2.22 (quiesce ${packageJson.version})
A storage daemon with the command line of qemu-storage-daemon, part of Quiesce; no code of QEMU is in it.
`;
}
