// The key pair of this page. The browser keeps it, and lets no script read the
// private half: one that gets into the page can sign while the page is open, but
// cannot take the key away.

export async function loadKey() {
  return (await inStore('readonly', (store) => store.get('dpop'))) ?? makeKey();
}

export async function makeKey() {
  const keys = await generateKey();
  await inStore('readwrite', (store) => store.put(keys, 'dpop'));
  return keys;
}

export const generateKey = () => crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify']);

function inStore(mode, work) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open('keys', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('keys');
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction('keys', mode);
      const request = work(transaction.objectStore('keys'));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
      database.close(); // once the transaction is over
    };
  });
}
