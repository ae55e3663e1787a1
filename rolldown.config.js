/** The CLI's bundle: one entry per program, and one chunk for what each command loads when it runs. */
export default {
  input: { main: 'cli/main.mts', nbd: 'cli/nbd/main.mts', 'storage-daemon': 'cli/storage-daemon/main.mts' },
  cwd: import.meta.dirname,
  platform: 'node',
  // koffi is native; the others stay outside because only the commands that need them may pay for loading them
  external: ['koffi', 'yargs', 'fs-extra', /^fs-extra\//, 'cli-progress', 'pino', /^node:/],
  // modules of this package do nothing when imported, so what is not used may go
  treeshake: { moduleSideEffects: (id) => id.includes('/node_modules/') },
  resolve: { extensionAlias: { '.js': ['.ts', '.js'], '.mjs': ['.mts', '.mjs'] } },
  output: { format: 'esm', entryFileNames: '[name].js', chunkFileNames: 'chunk-[name]-[hash].js' },
};
