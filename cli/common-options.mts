/** Options that several commands share. */
export const CACHE_CHOICES = ['writeback', 'none', 'writethrough', 'directsync', 'unsafe'] as const;
export const FORMAT_CHOICES = ['qcow2', 'raw'] as const;

export const BACKING = {
  type: 'string', choices: ['allow', 'same-dir', 'deny'], default: 'allow',
  help: 'which backing files an image may name: all, those in its own directory, none (for images you do not trust)',
} as const;

export const SHARE = { type: 'boolean', alias: 'U', help: 'read the image even while a machine or another tool writes it' } as const;

export const JSON_OUTPUT = { type: 'boolean', help: 'print JSON, for programs' } as const;

export const JSON_EVENTS = { type: 'boolean', help: 'print what happens as JSON, an object a line; the last one sums up' } as const;

export const ALSO = {
  type: 'string', array: true, value: 'IMAGE...', help: 'further disks of the same machine: all of them or none (takes all words after it)',
} as const;

export const CACHE = {
  type: 'string', choices: CACHE_CHOICES,
  help: "QEMU's cache mode of the image; by default none (O_DIRECT), or writeback where the file system has no O_DIRECT",
} as const;

/** Of every command that does I/O itself. */
export const TRACING = {
  trace: { type: 'string', value: 'FILE', help: 'record all I/O of the command into FILE.blktrace.0, for quiesce trace, blkparse, btt, iowatcher and fio' },
  'trace-events': {
    type: 'string', array: true, repeated: true, value: 'PATTERNS',
    help: "log QEMU's trace events of these names, like 'qcow2_*,mirror_*', to standard error; 'help' lists them",
  },
  'trace-log': { type: 'string', value: 'LOG', help: 'with --trace-events: the file to log them to' },
} as const;
