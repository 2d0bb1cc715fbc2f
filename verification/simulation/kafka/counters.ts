// Imports: nothing. What a run reached, by name: a world that reaches nothing is seen.

export class Counters {
  readonly counts = new Map<string, number>();

  count(name: string, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  of(name: string): number {
    return this.counts.get(name) ?? 0;
  }

  add(other: Counters): void {
    for (const [name, count] of other.counts) this.count(name, count);
  }

  sorted(): Record<string, number> {
    return Object.fromEntries([...this.counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}
