/** Returns url in full. Pages may give one that is relative to them. */
export function address(url: string | URL): string {
  return new URL(url, globalThis.location?.href).href;
}
