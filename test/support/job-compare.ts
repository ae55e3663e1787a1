/** Cells of a matrix of scripts, played one after the other to each daemon: which of them get other messages. */
import { mkdirSync } from 'node:fs';
import { makeMatrixImages } from './job-matrix.js';
import { ourReplies, StuckScript, theirReplies, type JobStep } from './job-script.js';

export interface ScriptCell {
  readonly name: string;
  readonly steps: readonly JobStep[];
}

const STUCK = 'stuck: ';

/** Each daemon has a folder of its own, and both work at the same time. Returns what differs, in words. */
export async function differences(place: (name: string) => string, make: (folder: string) => Promise<readonly ScriptCell[]> | readonly ScriptCell[]): Promise<string> {
  const play = async (name: string, replies: typeof ourReplies): Promise<{ readonly cells: readonly ScriptCell[]; readonly messages: string[][] }> => {
    const folder = place(name);
    mkdirSync(folder);
    await makeMatrixImages(folder);
    const cells = await make(folder);
    const told = await replies(cells.flatMap(({ steps }) => steps), folder).catch((error: unknown) => {
      if (error instanceof StuckScript) return [...error.replies, [`${STUCK}${error.message}`]];
      throw error;
    });
    return { cells, messages: told.map((messages) => messages.map((message) => message.replaceAll(folder, '@'))) };
  };
  const [theirs, ours] = await Promise.all([play('theirs', theirReplies), play('ours', ourReplies)]);
  const wrong: string[] = [];
  let at = 0;
  for (const { name, steps } of theirs.cells) {
    for (const step of steps) {
      const [mine, yours] = [ours, theirs].map(({ messages }) => messages[at]?.join('\n       ') ?? '');
      if (mine !== yours || mine!.startsWith(STUCK)) wrong.push(`${name}: ${JSON.stringify(step)}\nours   ${mine}\ntheirs ${yours}`);
      if (mine!.startsWith(STUCK) || yours!.startsWith(STUCK)) return wrong.join('\n\n');
      at++;
    }
  }
  return wrong.join('\n\n');
}
