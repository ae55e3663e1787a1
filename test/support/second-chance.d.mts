/** Of the reports of `jest --json`, what is looked at. */
interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

interface Run {
  readonly ok: boolean;
  readonly report: Report | null;
}

export function filesToRepeat(report: Report | null, root: string): string[];
export function tally(first: Run, again: Run | null, root: string): {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly unsteady: readonly string[];
};
