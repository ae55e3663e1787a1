/** A part of build.js: the page of `trace serve` and `trace report --html`, with script and style in one file that needs no other. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { rolldown } from 'rolldown';

const FOLDER = join(import.meta.dirname, 'src', 'viewer', 'web');

export async function buildPage() {
  const bundle = await rolldown({
    input: join(FOLDER, 'page.ts'), platform: 'browser', tsconfig: join(FOLDER, 'tsconfig.json'), resolve: { extensionAlias: { '.js': ['.ts', '.js'] } },
  });
  const { output: [{ code }] } = await bundle.generate({ format: 'iife', minify: true });
  await bundle.close();
  const plotStyle = readFileSync(createRequire(import.meta.url).resolve('uplot/dist/uPlot.min.css'), 'utf8');
  const style = `${plotStyle}\n${readFileSync(join(FOLDER, 'page.css'), 'utf8')}`;
  // functions as replacements: `$&` in the code is no pattern
  return readFileSync(join(FOLDER, 'page.html'), 'utf8').replace('/*STYLE*/', () => style).replace('/*SCRIPT*/', () => code.replaceAll('</script', String.raw`<\/script`));
}
