/**
 * A helper of insertDeduped: what `doubt.ts` decides about and with: states, steps, what may happen. Pure.
 * Imports: errors, model, ports.
 */
import type { ErrorFields, IngestError } from '../../src/errors.js';
import type { IntentNotes } from '../../src/model/state.js';
import type { InsertResult, ReadBack } from '../../src/ports.js';

/** What is known of the attempts under one token. */
export interface Doubt {
  /** One of them, of this process or of one before it, may have landed. */
  readonly isInDoubt: boolean;
  /** Of one of them nobody knows whether it is still on its way: its answer was lost, or an earlier owner had it. */
  readonly isUnanswered: boolean;
}

/** What does not change while one range is inserted under one token. */
export interface InsertRange {
  /** A state holds it, so something can be added to what is recorded. */
  readonly isRecorded: boolean;
  /** As it was recorded: see `Intent`. */
  readonly isFilling: boolean;
  readonly isUnseen: boolean;
  /** A doubt about a token that was never sent can be cleared by recording the range again. */
  readonly canRenew: boolean;
  /** What may be a record's fault is tried again like any passing error, not handed on after a few times. */
  readonly isPatient: boolean;
  /** What may have landed is not sent again: at-most-once. */
  readonly abandons: boolean;
  readonly maxAttempts: number;
  /** For errors about it. */
  readonly place: ErrorFields;
}

export type Goal = 'insert' | 'verify' | 'fill' | 'verify fill' | 'absence';
export type PortCall = 'insert' | 'readBack' | 'fill';

export interface Attempts {
  readonly goal: Goal;
  readonly doubt: Doubt;
  /** Failed calls since the goal began. */
  readonly failures: number;
  /** Calls that are left to what is final, as far as one answer tells. */
  readonly fewLeft: number;
  /** Something was sent. */
  readonly wasTried: boolean;
  /** The last call that was made for the goal. */
  readonly call: PortCall;
  /** Why the table is asked before an attempt. */
  readonly why: string | undefined;
  /** What is to be filled. */
  readonly missing: readonly number[];
  /** What was sent last had not all of the batch. */
  readonly isPartial: boolean;
  /** Of what was answered first; undefined: nothing was. */
  readonly result: InsertResult | undefined;
  /** What is being stored, and what is done then. */
  readonly stored: { readonly fields: IntentNotes; readonly then: Step } | undefined;
}

export type Step =
  /** Ask whether the token tells. */
  | { readonly kind: 'ask' }
  /** Look into the table. `why`: before an attempt. */
  | { readonly kind: 'look'; readonly why: string | undefined }
  | { readonly kind: 'send all' }
  | { readonly kind: 'send missing' | 'fill'; readonly offsets: readonly number[] }
  /** Store it; without fields this only shows who the owner is. */
  | { readonly kind: 'note'; readonly fields: IntentNotes }
  /** `isStuck`: this is to be told of. */
  | {
      readonly kind: 'wait';
      readonly attempt: number;
      readonly call: PortCall;
      readonly error: IngestError;
      readonly isStuck: boolean;
    }
  | { readonly kind: 'end'; readonly outcome: Outcome };

export type Outcome =
  | { readonly kind: 'inserted'; readonly result: InsertResult }
  /**
   * Nothing was sent that may have landed: the token became doubtful, and a fenced write can clear that. `wasTried`:
   * not at once.
   */
  | { readonly kind: 'unsent'; readonly wasTried: boolean }
  | { readonly kind: 'looked'; readonly isAbsent: boolean }
  | { readonly kind: 'failed'; readonly error: IngestError };

export type Happened =
  /** Why the server may not know the token any more; undefined: it tells. */
  | { readonly kind: 'asked'; readonly why: string | undefined }
  /** `isAbsent`: not one row of the batch is there. */
  | { readonly kind: 'looked'; readonly found: ReadBack; readonly isAbsent: boolean }
  /** `mayBeLost`: where one attempt is in doubt the answer to another does not show that the rows are there. */
  | { readonly kind: 'answered'; readonly result: InsertResult; readonly mayBeLost: boolean }
  | { readonly kind: 'noted' }
  | { readonly kind: 'waited' }
  | { readonly kind: 'failed'; readonly error: IngestError; readonly nowMs: number };

export interface Move {
  readonly attempts: Attempts;
  readonly step: Step;
}

export function sending(attempts: Attempts, step: Step): Move {
  switch (step.kind) {
    case 'send all':
    case 'send missing': {
      const isPartial = step.kind === 'send missing';
      return { attempts: { ...attempts, call: 'insert', wasTried: true, isPartial }, step };
    }
    case 'fill':
      return { attempts: { ...attempts, call: 'fill' }, step };
    default:
      return { attempts, step };
  }
}

export function looking(attempts: Attempts, why: string | undefined): Move {
  return { attempts: { ...attempts, call: 'readBack', why }, step: { kind: 'look', why } };
}

export function noting(attempts: Attempts, fields: IntentNotes, then: Step): Move {
  return { attempts: { ...attempts, stored: { fields, then } }, step: { kind: 'note', fields } };
}

export function ended(attempts: Attempts, outcome: Outcome): Move {
  return { attempts, step: { kind: 'end', outcome } };
}

export function halted(attempts: Attempts, error: IngestError): Move {
  return ended(attempts, { kind: 'failed', error });
}
