/**
 * A partition's name, for people and as a key, and names of many. A number stands behind the last slash, so no two have
 * the same. Imports: nothing.
 */

export function partitionName({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}/${partition}`;
}

const MAX_NAMES = 20;

/** For people, at most twenty runs of them: "flights/0-7, flights/12". */
export function partitionNames(places: ReadonlyMap<string, ReadonlySet<number>>): string {
  const names = [...places].flatMap(([topic, partitions]) =>
    runsOf([...partitions].sort((a, b) => a - b)).map((run) => `${topic}/${run}`),
  );
  return names.length <= MAX_NAMES ? names.join(', ') : `${names.slice(0, MAX_NAMES).join(', ')}, …`;
}

/** Ascending numbers as "0-7", "12". */
function runsOf(numbers: readonly number[]): readonly string[] {
  const runs: { first: number; last: number }[] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run?.last === number - 1) run.last = number;
    else runs.push({ first: number, last: number });
  }
  return runs.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`));
}
