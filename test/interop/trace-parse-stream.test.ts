/** A stream is sorted as blkparse sorts it: the kernel's own, files one after the other, and dumps, which it reads anew from time 0 with each batch. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from '@jest/globals';
import { captures, expectSameText } from '../support/blkparse.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const read = (name: string): Buffer => readFileSync(join(captures, name));

peers('blkparse')('a stream prints as blkparse prints it', () => {
  beforeEach(async () => {
    cpSync(join(captures, 'qemu-savevm.ftrace-stream.bin'), tmp('kernel'));
    for (const name of ['qemu-savevm', 'synth-mixed']) {
      writeFileSync(tmp(`${name}.all`), Buffer.concat([read(`${name}.blktrace.0`), read(`${name}.blktrace.1`)]));
      await runOk('blkparse', ['-O', '-i', join(captures, name), '-d', tmp(`${name}.bin`)]);
    }
  });

  test.each(['kernel', 'qemu-savevm.all', 'synth-mixed.all', 'qemu-savevm.bin', 'synth-mixed.bin'])('%s', async (file) => {
    // the wall clock of a dump is nonsense in blkparse, since its first event is at time 0
    const time = file.endsWith('.bin') ? '%T' : '%z';
    for (const options of [['-s'], ['-b', '100'], ['-w', '0.1:0.5'], ['-q', '-f', `${time} %T.%t %s\\n`]]) {
      const text = await expectSameText(['-i', '-', ...options], tmp(), file);
      if (options[0] === '-s') expect(text).toMatch(/^Events \([78],0\): (964|2902) entries$/m);
    }
  });
});
