/** Returns url in full, with ws and wss as its schemes. Pages may give one that is relative to them. */
export function address(url: string | URL): URL {
  let u: URL;
  try {
    u = new URL(url, globalThis.location?.href);
  } catch {
    throw new TypeError('StreamerClient: the URL can not be parsed');
  }
  if (!/^(ws|http)s?:$/.test(u.protocol)) {
    throw new TypeError(`StreamerClient: URL scheme ${u.protocol} must be ws, wss, http or https`);
  }
  u.hash = '';
  return u;
}
