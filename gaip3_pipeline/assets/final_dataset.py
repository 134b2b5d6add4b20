"""The images that train the generator, by the 99.99 % rule."""

import dagster as dg

from gaip3_pipeline.assets.gender import PROCESSED
from gaip3_pipeline.settings import Settings
from gaip3_pipeline.versions import AssetContext, AssetResult, versioned_asset


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """``final_dataset``."""

    @versioned_asset(
        settings,
        name="final_dataset",
        deps=["gender_probabilities", "near_duplicates", *PROCESSED],
        version=2,
        reads=lambda s: (s.final_dataset,),
        group="final_dataset",
        kinds={"jpeg", "parquet"},
        description=(
            "The images with P(female) of at least the threshold (99.99 % by default), except those"
            " of the male folder. They are hard links, and packed in one array."
        ),
    )
    def final_dataset(step: AssetContext) -> AssetResult:
        from gaip3_pipeline.evaluation.selection import selection_figures
        from gaip3_pipeline.imaging.packing import pack
        from gaip3_pipeline.imaging.sheets import sheet_of_files
        from gaip3_pipeline.tables.contracts import read_gender_probabilities
        from gaip3_pipeline.tables.files import foreign_entries, writing
        from gaip3_pipeline.tables.final import link_final, select_final
        from gaip3_pipeline.tables.manifests import manifest_version
        from gaip3_pipeline.training_data import originals_table

        probabilities = read_gender_probabilities(step.root.gender_probabilities)
        originals = originals_table(step.root)
        chosen = select_final(probabilities, originals, step.settings.final_dataset.threshold)
        manifest = link_final(step.root, chosen)
        files = [step.root.path / p for p in manifest.path]
        size = step.settings.images
        pack(files, step.root.packed_final, size.height, size.width, step.progress())
        with writing(step.root.manifest(step.name)) as temporary:
            manifest.to_parquet(temporary, index=False)
        figures = selection_figures(probabilities, manifest, step.settings.final_dataset.threshold)
        figures["foreign"] = foreign_entries(step.root.final, [p.name for p in files])[:20]
        return AssetResult(
            manifest_version(manifest),
            figures,
            sheet_of_files(files, title="final_dataset"),
            tables=[step.root.manifest(step.name)],
        )

    return [final_dataset]
