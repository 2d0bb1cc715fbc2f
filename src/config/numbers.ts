/**
 * Imports: zod. The numbers of a configuration, each with a limit.
 */
import { z } from 'zod';

export const positive = (max: number) => z.int().min(1).max(max);
export const durationMs = positive(24 * 3_600_000);
