"use strict";
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  // Swagger's validator is on the Internet; this page asks nobody but its own server.
  validatorUrl: null,
});
