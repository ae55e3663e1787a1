/** What a test may do to this machine as root: mounts and loop devices. Visibly skipped where that is not allowed. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe } from '@jest/globals';
import { findOnPath } from './peers.js';

type Ability = 'mount' | 'loop';
type Describe = (title: string, suite: () => void) => void;

/** `host(['loop'], 'mkfs.ext4')('title', () => { … })`: `describe` that needs these rights and programs. No CI promises them. */
export function host(abilities: readonly Ability[], ...programs: readonly string[]): Describe {
  const missing = [...abilities.filter((ability) => !isAble(ability)), ...programs.filter((name) => findOnPath(name) === undefined)];
  return missing.length === 0 ? (title, suite) => describe(title, suite)
    : (title, suite) => describe.skip(`${title} [skipped: this machine has no ${missing.join(', no ')}]`, suite);
}

function isAble(ability: Ability): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'quiesce-host-'));
  try {
    if (ability === 'mount') {
      call('mount', '-t', 'tmpfs', '-o', 'size=1M', 'quiesce-test', folder);
      call('umount', folder);
    } else {
      call('truncate', '-s', '1M', join(folder, 'disk'));
      call('losetup', '-d', call('losetup', '-f', '--show', join(folder, 'disk')));
    }
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function call(program: string, ...args: readonly string[]): string {
  return execFileSync(findOnPath(program) ?? program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

export interface HostDevices {
  /** Mounts at a new folder; returns it. */
  mount(at: string, ...args: readonly string[]): string;
  /** A loop device over the file. */
  loop(file: string): string;
}

/** What was mounted and attached goes away after each test. Call it before `useTmp`, whose folder must outlive its mounts. */
export function useHost(): HostDevices {
  const undo: (() => void)[] = [];
  afterEach(() => {
    for (const one of undo.splice(0).toReversed()) one();
  });
  return {
    mount(at, ...args) {
      mkdirSync(at);
      call('mount', ...args, at);
      undo.push(() => { call('umount', at); });
      return at;
    },
    loop(file) {
      const device = call('losetup', '-f', '--show', file);
      undo.push(() => { call('losetup', '-d', device); });
      return device;
    },
  };
}
