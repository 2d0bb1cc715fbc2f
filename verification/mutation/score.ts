// What a run of Stryker says once those that are known as equivalent are left out. Pure.
import type { Equivalent } from './equivalents.js';

interface Position {
  readonly line: number;
  readonly column: number;
}

/** What is read of Stryker's JSON report. Lines and columns count from 1. */
export interface MutationReport {
  readonly files: Readonly<
    Record<
      string,
      {
        readonly source: string;
        readonly mutants: readonly {
          readonly mutatorName: string;
          readonly replacement?: string | undefined;
          readonly status: string;
          readonly location: { readonly start: Position; readonly end: Position };
        }[];
      }
    >
  >;
}

/** One that no test noticed. */
export interface Survivor {
  readonly file: string;
  readonly line: number;
  readonly mutator: string;
  readonly original: string;
  readonly replacement: string;
  /** False: no test ran through it. */
  readonly isCovered: boolean;
}

export interface Score {
  /** Noticed: a test failed, or did not end. */
  readonly killed: number;
  readonly equivalent: number;
  readonly survivors: readonly Survivor[];
  /** Of killed and survivors, percent; undefined where there is none of either. */
  readonly percent: number | undefined;
}

const noticed = ['Killed', 'Timeout', 'RuntimeError'];
const unnoticed = ['Survived', 'NoCoverage'];

export function scoreOf(report: MutationReport, equivalents: readonly Equivalent[]): Score {
  const all = Object.entries(report.files).flatMap(([file, { source, mutants }]) =>
    mutants.map(({ mutatorName, replacement = '', status, location }) => ({
      status,
      survivor: {
        file,
        line: location.start.line,
        mutator: mutatorName,
        original: textBetween(source, location.start, location.end),
        replacement,
        isCovered: status !== 'NoCoverage',
      },
    })),
  );
  const killed = all.filter(({ status }) => noticed.includes(status)).length;
  const left = all.filter(({ status }) => unnoticed.includes(status)).map(({ survivor }) => survivor);
  const survivors = left.filter((survivor) => !equivalents.some((each) => isSame(each, survivor)));
  const counted = killed + survivors.length;
  return {
    killed,
    equivalent: left.length - survivors.length,
    survivors,
    percent: counted === 0 ? undefined : (100 * killed) / counted,
  };
}

function isSame(equivalent: Equivalent, { file, mutator, original, replacement }: Survivor): boolean {
  return (
    equivalent.file === file &&
    equivalent.mutator === mutator &&
    equivalent.original === original &&
    equivalent.replacement === replacement
  );
}

function textBetween(source: string, start: Position, end: Position): string {
  const lines = source.split('\n').slice(start.line - 1, end.line);
  const last = lines.length - 1;
  return lines
    .map((line, at) => line.slice(at === 0 ? start.column - 1 : 0, at === last ? end.column - 1 : undefined))
    .join('\n');
}
