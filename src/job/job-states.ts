/** Which states of a job follow which, and which verbs each state takes: QEMU's tables (qapi/job.json, JobStatus and JobVerb). */

export type JobStatus =
  | 'undefined' | 'created' | 'running' | 'paused' | 'ready' | 'standby' | 'waiting' | 'pending' | 'aborting' | 'concluded' | 'null';

export type JobVerb = 'cancel' | 'pause' | 'resume' | 'set-speed' | 'change' | 'complete' | 'finalize' | 'dismiss';

export const TRANSITIONS: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  undefined: ['created'],
  created: ['running', 'aborting', 'null'],
  running: ['paused', 'ready', 'waiting', 'aborting'],
  paused: ['running'],
  ready: ['standby', 'waiting', 'aborting'],
  standby: ['ready'],
  waiting: ['pending', 'aborting'],
  pending: ['aborting', 'concluded'],
  aborting: ['aborting', 'concluded'],
  concluded: ['null'],
  null: [],
};

const ALIVE: readonly JobStatus[] = ['created', 'running', 'paused', 'ready', 'standby'];

export const VERBS: Readonly<Record<JobVerb, readonly JobStatus[]>> = {
  cancel: [...ALIVE, 'waiting', 'pending'],
  pause: ALIVE,
  resume: ALIVE,
  'set-speed': ALIVE,
  change: ALIVE,
  complete: ['ready', 'standby'],
  finalize: ['pending'],
  dismiss: ['concluded'],
};
