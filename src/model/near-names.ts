/**
 * Which of the names that exist somebody may have meant. Imports: nothing.
 */

const MOST_NAMES = 3;

/** At most three, the nearest first: the same but for case, or at most one changed character in three. */
export function nearNames(wanted: string, existing: readonly string[]): readonly string[] {
  const low = wanted.toLowerCase();
  const limit = Math.floor(low.length / 3);
  return existing
    .filter((name) => name !== wanted && Math.abs(name.length - wanted.length) <= limit)
    .map((name) => ({ name, edits: editsBetween(low, name.toLowerCase()) }))
    .filter(({ edits }) => edits <= limit)
    .sort((a, b) => a.edits - b.edits || (a.name < b.name ? -1 : 1))
    .slice(0, MOST_NAMES)
    .map(({ name }) => name);
}

/** Levenshtein's distance. */
function editsBetween(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let row = 1; row <= a.length; row++) {
    const line = [row];
    for (let at = 1; at <= b.length; at++) {
      const swapped = (above[at - 1] ?? 0) + (a[row - 1] === b[at - 1] ? 0 : 1);
      line.push(Math.min(swapped, (above[at] ?? 0) + 1, (line[at - 1] ?? 0) + 1));
    }
    above = line;
  }
  return above[b.length] ?? 0;
}
