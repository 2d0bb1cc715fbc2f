/**
 * What may be done to a simulated table while it is used. Types only. Imports: nothing.
 */

/**
 * What somebody does to a table.
 *
 * | alteration | what it does |
 * | --- | --- |
 * | `add provenance` | the columns are there, and empty in every row |
 * | `drop provenance` | the columns are gone, with their values |
 * | `drop and add provenance` | both |
 * | `add column` | another column, which nobody looks at |
 * | `remove window`, `restore window` | the dedup window is 0, which forgets every token, and not 0 again |
 * | `toggle window` | both |
 * | `exchange` | an empty table takes its place, and its name; exchanged again, the first one is back |
 * | `recreate` | dropped, and created again: its rows are gone |
 * | `hide rows` | a row policy: nothing is seen by those who look |
 * | `rename away`, `rename back` | no table has its name, and the same one has it again |
 */
export type Alteration =
  | 'add provenance'
  | 'drop provenance'
  | 'drop and add provenance'
  | 'add column'
  | 'remove window'
  | 'restore window'
  | 'toggle window'
  | 'exchange'
  | 'recreate'
  | 'hide rows'
  | 'rename away'
  | 'rename back';

/** What can be altered of a table. */
export interface TableDefinition {
  readonly id: string;
  readonly hasProvenance: boolean;
  readonly keepsTokens: boolean;
  /** Which other columns there are. */
  readonly more: number;
  readonly alteredS: number;
  readonly mutation: number;
  readonly isHidden: boolean;
  /** No table has its name. */
  readonly isGone: boolean;
}
