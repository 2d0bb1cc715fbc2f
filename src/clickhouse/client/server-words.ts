/**
 * What of a server's message is the server's own. Pure.
 *
 * A message quotes values, raw or in quotes, and a value may hold the very words that are looked for. ClickHouse adds
 * its own to the end as an error rises through it, so only what stands at the very end is read, from there backwards:
 *
 * ```
 * Code: 27. DB::Exception: … before: 'any text': (while reading the value of key n): (at row 8)
 * : While executing JSONEachRowRowInputFormat. (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.7.2.1)
 * ```
 * Imports: nothing.
 */

/** Its own words about where an error arose. */
export interface ServerWords {
  /** The row it blames, counted from 1; undefined: none. */
  readonly row: number | undefined;
  /** The error arose in a materialized view: the table's own rows have landed by then. */
  readonly isFromView: boolean;
  /** It arose in an expression over values that had been parsed: a DEFAULT, MATERIALIZED, a key. */
  readonly isFromExpression: boolean;
  /** It arose while a field's value was read: the server was still parsing. */
  readonly isFromValue: boolean;
  /** It arose before the first row, in what is said about the columns. */
  readonly isFromHeader: boolean;
}

const NAME = String.raw`(?:\x60(?:[^\x60\\]|\\[^])*\x60|[\w.-]+)`;
const trailer = /\.?\s*(?:\([A-Z][A-Z0-9_]*\)\s*)?(?:\(version [^()]*(?:\([^()]*\))?\)\s*)?$/;
const executing = /\s*: While executing ?\w*$/;
const view = new RegExp(String.raw`: while pushing to view ${NAME}(?:\.${NAME})?(?: \([\w-]+\))?$`);
const expression = /: while executing 'FUNCTION [^]*'$/;
const row = /\(at row (\d+)\)$/;
const value = new RegExp(String.raw`\(while reading the value of key ${NAME}\)$`);
const header = /\(while reading header\)$/;

/** `code`: the server's. A constraint's row stands before the values that broke it. */
export function serverWords(code: number | undefined, text: string): ServerWords {
  let said = text.replace(trailer, '');
  while (executing.test(said)) said = said.replace(executing, '');
  said = said.trimEnd();
  const violated = code === 469 ? /is violated at row (\d+)/.exec(text)?.[1] : undefined;
  const found = violated ?? row.exec(said)?.[1];
  return {
    row: found === undefined ? undefined : Number(found),
    isFromView: view.test(said),
    isFromExpression: expression.test(said),
    isFromValue: value.test(said),
    isFromHeader: header.test(said),
  };
}
