/**
 * The CLI's bundle: one entry per program, and one chunk for what each command loads when it runs. CommonJS, since only
 * that can be loaded with its code compiled ahead (cli/compiled.cjs).
 */

/** Code compiled ahead cannot import packages without a warning of Node 20's, so a file that Node itself loads does it. */
const importPackage = {
  name: 'import-package',
  renderChunk: (code) => code.replaceAll(/\bimport\((?=")/g, 'require("./import.cjs").importPackage('),
  generateBundle() {
    this.emitFile({ type: 'asset', fileName: 'import.cjs', source: 'exports.importPackage = (name) => import(name);\n' });
  },
};

export default {
  input: { main: 'cli/main.mts', nbd: 'cli/nbd/main.mts', 'storage-daemon': 'cli/storage-daemon/main.mts' },
  cwd: import.meta.dirname,
  platform: 'node',
  // koffi is native; the others stay outside because only the commands that need them may pay for loading them
  external: ['koffi', 'yargs', 'fs-extra', /^fs-extra\//, 'cli-progress', 'pino', /^node:/],
  // modules of this package do nothing when imported, so what is not used may go
  treeshake: { moduleSideEffects: (id) => id.includes('/node_modules/') },
  resolve: { extensionAlias: { '.js': ['.ts', '.js'], '.mjs': ['.mts', '.mjs'] } },
  plugins: [importPackage],
  output: { format: 'cjs', entryFileNames: '[name].cjs', chunkFileNames: 'chunk-[name]-[hash].cjs' },
};
