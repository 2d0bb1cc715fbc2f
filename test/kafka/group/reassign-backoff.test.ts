import { describe, expect, test } from 'vitest';
import { ReassignBackoff } from '../../../src/kafka/group/reassign-backoff.js';

describe('the pause before a partition is started again', () => {
  test('doubles while renewals follow each other, so that two who claim against each other do not spin', () => {
    const renewals = new ReassignBackoff();
    let nowMs = 0;
    const pauses = Array.from({ length: 8 }, () => {
      const pauseMs = renewals.pause('t/0', 30_000, nowMs);
      nowMs += pauseMs + 1000;
      return pauseMs;
    });
    expect(pauses).toEqual([30_000, 60_000, 120_000, 240_000, 300_000, 300_000, 300_000, 300_000]);
  });

  test('is short again after a quiet time of ten pauses, and each partition has its own', () => {
    const renewals = new ReassignBackoff();
    expect(renewals.pause('t/0', 100, 0)).toBe(100);
    expect(renewals.pause('t/1', 100, 0)).toBe(100);
    expect(renewals.pause('t/0', 100, 1100)).toBe(200);
    expect(renewals.pause('t/0', 100, 1300 + 2001)).toBe(100);
  });
});
