import { describe, expect, test } from 'vitest';
import { Pauses, type PartitionSelection } from '../../src/model/pauses.js';

const at = (topic: string, partition: number) => ({ topic, partition });
const pausedOf = (pauses: Pauses) =>
  [at('a', 0), at('a', 1), at('b', 0)].map((place) => (pauses.has(place) ? `${place.topic}${place.partition}` : '-'));

describe('what is paused', () => {
  test('what was said last counts: of a partition, else of its topic, else of all', () => {
    const pauses = new Pauses();
    expect(pausedOf(pauses)).toEqual(['-', '-', '-']);
    pauses.pause({ topic: 'a' });
    expect(pausedOf(pauses)).toEqual(['a0', 'a1', '-']);
    pauses.resume(at('a', 1));
    expect(pausedOf(pauses)).toEqual(['a0', '-', '-']);
    pauses.pause({ topic: 'a' });
    expect(pausedOf(pauses)).toEqual(['a0', 'a1', '-']);
    pauses.pause();
    pauses.resume(at('b', 0));
    expect([pausedOf(pauses), pauses.isAll]).toEqual([['a0', 'a1', '-'], false]);
    pauses.resume();
    expect(pausedOf(pauses)).toEqual(['-', '-', '-']);
  });

  test('everything is paused only where nothing was resumed by itself', () => {
    const pauses = new Pauses();
    pauses.pause();
    pauses.pause(at('a', 0));
    expect(pauses.isAll).toBe(true);
    pauses.resume({ topic: 'a' });
    expect(pauses.isAll).toBe(false);
  });

  test('a source that comes later is told all of it', () => {
    const pauses = new Pauses();
    const later = new Pauses();
    pauses.pause();
    pauses.resume({ topic: 'a' });
    pauses.pause(at('a', 1));
    pauses.applyTo(later);
    expect(pausedOf(later)).toEqual(['-', 'a1', 'b0']);
  });

  test.each([
    [{ topic: '' }, /`topic`.*""/],
    [{ topic: 7 }, /`topic`.*7/],
    [at('a', -1), /`partition`.*whole number.*a\/-1/],
    [at('a', 1.5), /`partition`.*a\/1.5/],
  ])('%j is no selection, and nothing is paused by it', (selection, what) => {
    const pauses = new Pauses();
    expect(() => pauses.pause(selection as PartitionSelection)).toThrow(what);
    expect(pausedOf(pauses)).toEqual(['-', '-', '-']);
  });

  test('what is said one by one has a limit', () => {
    const pauses = new Pauses();
    for (let partition = 0; partition < 10_000; partition++) pauses.pause(at('a', partition));
    pauses.pause(at('a', 0));
    expect(() => pauses.pause(at('a', 10_000))).toThrow(/More than 10000/);
    expect(() => pauses.pause({ topic: 'b' })).toThrow(/More than 10000/);
    pauses.pause();
    pauses.pause(at('a', 10_000));
  });
});
