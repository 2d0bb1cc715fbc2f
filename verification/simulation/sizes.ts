// How many random worlds the tests play; `npm run simulate -- --seeds N --from M` takes any number.

/** Seeds 1 and up, in `npm run test:quick` and `npm test`. */
export const QUICK_SEEDS = 200;
/** The seeds after those, in `npm test`. */
export const LONG_SEEDS = 800;
