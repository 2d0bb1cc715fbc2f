/**
 * What a check before the start has found, and the error that refusals become. Pure. Imports: errors.
 */
import { asIngestError, type ErrorCode, IngestError } from '../errors.js';

/** One thing that a check before the start has looked at. */
export interface Finding {
  readonly level: 'ok' | 'warning' | 'refusal';
  /** What was looked at, for example `dedup window of default.orders`. */
  readonly what: string;
  /** What was found, one sentence. */
  readonly detail: string;
  /** What to do about it: a statement to run, or a sentence. */
  readonly todo?: string;
  /** Of a refusal: the code of the error it becomes. */
  readonly code?: ErrorCode;
}

/** The refusals among the findings as one error, with the first one's code; undefined when there are none. */
export function refusalOf(findings: readonly Finding[]): IngestError | undefined {
  const refusals = findings.filter(({ level }) => level === 'refusal');
  const [first] = refusals;
  if (first === undefined) return undefined;
  const todos = refusals.flatMap(({ todo }) => (todo === undefined ? [] : [todo]));
  return new IngestError(
    first.code ?? 'KCR_PREFLIGHT',
    refusals.map(({ what, detail }) => `${what}: ${detail}`).join('; '),
    {
      hint: todos.length === 0 ? undefined : todos.join('; '),
    },
  );
}

/** Before a start: tells what is doubtful. @throws what is refused. */
export function expectNoRefusal(findings: readonly Finding[], onWarning?: (finding: Finding) => void): void {
  const refused = refusalOf(findings);
  if (refused !== undefined) throw refused;
  for (const finding of findings) if (finding.level === 'warning') onWarning?.(finding);
}

export function refusal(code: ErrorCode, what: string, detail: string, todo?: string): Finding {
  return { level: 'refusal', what, detail, code, ...(todo === undefined ? {} : { todo }) };
}

export function warning(what: string, detail: string, todo?: string): Finding {
  return { level: 'warning', what, detail, ...(todo === undefined ? {} : { todo }) };
}

export function ok(what: string, detail: string): Finding {
  return { level: 'ok', what, detail };
}

/** What a check threw, as its refusal. */
export function refusalFrom(what: string, thrown: unknown): Finding {
  const { code, detail, fields } = asIngestError(thrown, 'KCR_PREFLIGHT', 'the check failed');
  return { level: 'refusal', code, what, detail, ...(fields.hint === undefined ? {} : { todo: fields.hint }) };
}
