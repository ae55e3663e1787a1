import type { Finding, Severity } from '../../finding.js';
import { Ancestry } from './ancestry.js';
import { Disorder } from './disorder.js';
import { FlushStorm } from './flush-storm.js';
import { HeadOfLine } from './head-of-line.js';
import { MetadataAmplification } from './metadata.js';
import { Misalignment } from './misalignment.js';
import { ReadModifyWrite } from './read-modify-write.js';
import type { Rule, RuleContext } from './rule.js';
import { Saturation } from './saturation.js';
import { Serial } from './serial.js';

/** What a finding may be called. */
export const RULE_NAMES = ['rmw', 'misaligned', 'depth-1', 'slow-submitter', 'flush-storm', 'metadata', 'random', 'saturated', 'head-of-line'] as const;

const SEVERITIES: readonly Severity[] = ['critical', 'warning', 'note'];

/** All rules of diagnosis, to be told of the requests of one trace. */
export function makeRules(context: RuleContext): readonly Rule[] {
  return [Ancestry, ReadModifyWrite, Misalignment, Serial, FlushStorm, MetadataAmplification, Disorder, Saturation, HeadOfLine].map((rule) => new rule(context));
}

/** The worst first; those of one severity as `RULE_NAMES` has them. */
export function findingsOf(rules: readonly Rule[]): readonly Finding[] {
  const order = ({ rule, severity }: Finding): number => SEVERITIES.indexOf(severity) * 100 + (RULE_NAMES as readonly string[]).indexOf(rule);
  const all = rules.flatMap((rule) => rule.findings());
  const ancestry = rules.find((rule) => rule instanceof Ancestry);
  return (ancestry?.withoutEchoes(all) ?? all).sort((a, b) => order(a) - order(b));
}
