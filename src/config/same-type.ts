/**
 * Do two types take the same keys and values? Types only. Imports: nothing.
 */

/**
 * `true` where both have the same keys, required or not, and the same values in them; else `false`. Passed over:
 * `readonly`, and whether a key that may be left out may also be given as undefined.
 */
export type Same<A, B> = Identical<Plain<A>, Plain<B>>;

type Identical<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

type Plain<T> = T extends (...args: never[]) => unknown
  ? T
  : T extends object
    ? { readonly [K in keyof T]: Plain<Exclude<T[K], undefined>> }
    : T;
