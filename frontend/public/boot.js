// Runs before everything else, as a file because the content policy allows no
// inline script. WebKitGTK under LANG=C says navigator.language is "C", which
// Intl refuses with an exception; chart libraries ask Intl while they load.
(function () {
  try {
    new Intl.NumberFormat(navigator.language);
  } catch {
    Object.defineProperty(navigator, 'language', { get: () => 'en-US' });
    Object.defineProperty(navigator, 'languages', { get: () => ['en-US', 'en'] });
  }
  var scheme = localStorage.getItem('mantine-color-scheme-value');
  if (scheme !== 'light' && scheme !== 'dark') {
    scheme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  }
  // Set before the first paint, so that a dark page never flashes white.
  document.documentElement.setAttribute('data-mantine-color-scheme', scheme);
})();
