/**
 * An object with some of its members exchanged. Imports: nothing.
 */

/** Members that are not exchanged stay those of `target`, with its private fields, also such as were added since. */
export function overlay<T extends object>(target: T, exchanged: Partial<T>): T {
  return new Proxy(target, {
    get: (_, name) => {
      const value: unknown = Object.hasOwn(exchanged, name) ? Reflect.get(exchanged, name) : Reflect.get(target, name);
      return typeof value === 'function' && !Object.hasOwn(exchanged, name) ? (value.bind(target) as unknown) : value;
    },
  });
}
