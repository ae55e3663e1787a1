/** The order of test files: those that are known to take long come first, so that at the end no worker waits for one that began last. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const { default: Sequencer } = createRequire(import.meta.url)('@jest/test-sequencer');
const LONG = JSON.parse(readFileSync(new URL('long-tests.json', import.meta.url), 'utf8'));

export default class LongFirst extends Sequencer {
  sort(tests) {
    const rank = ({ path }) => {
      const at = LONG.findIndex((name) => path.endsWith(`/test/${name}.test.ts`));
      return at < 0 ? LONG.length : at;
    };
    // a stable sort: the rest stays as it was, by their last durations or sizes
    return [...super.sort(tests)].sort((a, b) => rank(a) - rank(b));
  }
}
