// Docs: the API as Swagger UI shows it.
// validatorUrl: otherwise the page would send this server's address to a validator on the internet.
"use strict";
SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null,
  defaultModelRendering: "model", defaultModelExpandDepth: 2, defaultModelsExpandDepth: 0});
