/**
 * A partition's name, for people and as a key: a number stands behind the last slash, so no two have the same.
 * Imports: nothing.
 */

export function partitionName({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}/${partition}`;
}
