"""What happened, as a note in an EMR: facts, layouts, FHIR, outbox and courier. Knows neither pbx nor ivr."""
