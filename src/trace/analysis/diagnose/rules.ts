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

/**
 * All rules as one listener. Each is called by its own name: what calls many classes from one place is several times slower than what
 * is compiled into its caller.
 */
class AllRules implements Rule {
  private readonly ancestry: Ancestry;
  private readonly readModifyWrite: ReadModifyWrite;
  private readonly misalignment: Misalignment;
  private readonly serial: Serial;
  private readonly flushStorm: FlushStorm;
  private readonly metadata: MetadataAmplification;
  private readonly disorder: Disorder;
  private readonly saturation: Saturation;
  private readonly headOfLine: HeadOfLine;

  constructor(context: RuleContext) {
    this.ancestry = new Ancestry(context);
    this.readModifyWrite = new ReadModifyWrite(context);
    this.misalignment = new Misalignment(context);
    this.serial = new Serial(context);
    this.flushStorm = new FlushStorm(context);
    this.metadata = new MetadataAmplification(context);
    this.disorder = new Disorder(context);
    this.saturation = new Saturation(context);
    this.headOfLine = new HeadOfLine(context);
  }

  requestOpened(slot: number, time: number): void {
    this.ancestry.requestOpened(slot);
    this.readModifyWrite.requestOpened(slot, time);
    this.misalignment.requestOpened(slot, time);
    this.serial.requestOpened(slot, time);
    this.flushStorm.requestOpened(slot, time);
    this.metadata.requestOpened(slot, time);
    this.disorder.requestOpened(slot, time);
    this.saturation.requestOpened(slot, time);
    this.headOfLine.requestOpened(slot);
  }

  requestIssued(slot: number, time: number): void {
    this.saturation.requestIssued(slot, time);
  }

  requestRequeued(slot: number, time: number): void {
    this.saturation.requestRequeued(slot, time);
  }

  requestCompleted(slot: number, time: number, sector: number, bytes: number, wasIssued: boolean): void {
    this.saturation.requestCompleted(slot, time, sector, bytes, wasIssued);
  }

  requestClosed(slot: number): void {
    this.readModifyWrite.requestClosed(slot);
    this.serial.requestClosed(slot);
    this.flushStorm.requestClosed(slot);
    this.saturation.requestClosed(slot);
    this.headOfLine.requestClosed(slot);
  }

  findings(): Finding[] {
    const rules = [this.readModifyWrite, this.misalignment, this.serial, this.flushStorm, this.metadata, this.disorder, this.saturation, this.headOfLine];
    return this.ancestry.withoutEchoes(rules.flatMap((rule) => rule.findings()));
  }
}

/** All rules of diagnosis, to be told of the requests of one trace. */
export function makeRules(context: RuleContext): Rule & Required<Pick<Rule, 'requestOpened' | 'requestIssued' | 'requestRequeued' | 'requestCompleted' | 'requestClosed'>> {
  return new AllRules(context);
}

/** The worst first; those of one severity as `RULE_NAMES` has them. */
export function findingsOf(rules: Rule): readonly Finding[] {
  const order = ({ rule, severity }: Finding): number => SEVERITIES.indexOf(severity) * 100 + (RULE_NAMES as readonly string[]).indexOf(rule);
  return rules.findings().sort((a, b) => order(a) - order(b));
}
