/** Whole contents of images in memory. */
import { BlockNode } from '../../src/block/node.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { KeptOpen } from './image-model.js';

export async function memoryOf(content: Uint8Array): Promise<MemoryDriver> {
  const memory = new MemoryDriver();
  await new BlockNode({ name: 'memory', driver: new KeptOpen(memory) }).write(0, content);
  return memory;
}

export async function fileBytes(memory: MemoryDriver): Promise<Uint8Array> {
  const content = new Uint8Array(memory.length());
  await new BlockNode({ name: 'memory', driver: new KeptOpen(memory) }).read(0, content);
  return content;
}
